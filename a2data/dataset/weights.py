"""Weights of samples, that is, their number of uses per epoch: by role, data set, copy risk or frequency."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from a2data.dataset.index_checks import numbers
from a2data.dataset.reader import Index


def rows_with_roles(index: Index, roles: Sequence[str]) -> np.ndarray | None:
    """Return which samples have a reference (of one of these roles, if given), (n,) bool; None if all have."""
    usable = index.references > 0
    if roles:
        assert index.table is not None
        role_lists = index.table["roles"].combine_chunks()
        has_role = pc.is_in(role_lists.flatten(), pa.array(roles, role_lists.type.value_type)).cast(pa.int8())
        usable = np.bincount(numbers(pc.list_parent_indices(role_lists)), numbers(has_role), len(index)) > 0
    return None if usable.all() else usable


def mixture_weights(index: Index, shares: Mapping[int, float], weights: np.ndarray | None) -> np.ndarray:
    """Return weights that give each data set its fraction of an epoch. The epoch keeps the number of samples of the index.

    shares: number of the folder -> share; normalised to the sum 1. weights: weights of the samples within their data sets.
    """
    base = np.ones(len(index)) if weights is None else weights
    total, result = sum(shares.values()), np.zeros(len(index))
    for folder, share in shares.items():
        in_folder = index.folder == folder
        folder_weight = base[in_folder].sum()
        if share > 0 and folder_weight == 0:
            raise ValueError(f"{index.folders[folder].root} has a share of {share}, but all its samples have weight 0")
        if share > 0:
            result[in_folder] = base[in_folder] * (share / total * len(index) / folder_weight)
    return result


def copy_filter_weights(table: pa.Table, power: float = 1.0) -> np.ndarray:
    """Return the weights (1 - copy_risk) ** power, which reduce samples whose riskiest reference is close to a copy."""
    return (1 - table["copy_risk"].to_numpy()) ** power


def balanced_weights(table: pa.Table, column: str = "roles", power: float = 0.5) -> np.ndarray:
    """Return weights that raise rare values of a column: the mean of frequency ** -power over a sample's values, with mean 1.

    power: 0 changes nothing; 1 makes all values equally frequent if samples have one value each. column: strings or lists of
    strings. A sample without values gets the weight of the most frequent value.
    """
    values = table[column].combine_chunks()
    if pa.types.is_list(values.type):
        row, names = numbers(pc.list_parent_indices(values)), values.flatten()
    else:
        row, names = np.arange(len(values)), values
    code = numbers(names.dictionary_encode().indices)
    rarity = (np.bincount(code) / len(table)) ** -power
    count = np.bincount(row, minlength=len(table))
    total = np.bincount(row, rarity[code], minlength=len(table))
    weights = np.where(count > 0, total / np.maximum(count, 1), rarity.min() if len(rarity) else 1.0)
    return weights / weights.mean()
