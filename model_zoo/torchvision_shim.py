"""Import hook that makes torchvision from PyPI, which is built for CUDA, work with a CPU build of PyTorch.

torchvision's compiled operators link against CUDA libraries that a CPU build of torch lacks, so they do not load, and `import
torchvision` fails with "operator torchvision::nms does not exist". PyPI has no CPU wheel. The hook registers the schemas that
the import needs, and non-maximum suppression in plain torch. `import model_zoo` installs it, and nothing else does.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

_kept: list[Any] = []  # a torch Library removes its definitions when it is collected


def install() -> None:
    """Make later imports of torchvision work, and those of libraries that import it. May be called again; imports nothing.

    Does nothing where torchvision's own operators load. Without them `nms` and `roi_align` work, in Python; `deform_conv2d` and
    torchvision.io keep their own error.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "torchvision" else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        if _kept or _loads(Path(self.path).parent):
            return super().exec_module(module)
        _define()
        super().exec_module(module)
        # only here: the other operators are still missing
        module.ops.boxes._assert_has_ops = lambda: None


def _loads(package: Path) -> bool:
    """Return whether the compiled operators of the torchvision in that folder load with this torch."""
    import torch

    library = next(package.glob("_C*.so"), None) or next(package.glob("_C*.pyd"), None)
    if library is None:
        return False
    try:
        torch.ops.load_library(str(library))
    except OSError:
        return False
    return True


def _define() -> None:
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("_cuda_version() -> int")
    library.impl("nms", nms, "CPU")
    _kept.append(library)


def nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Greedy non-maximum suppression like torchvision.ops.nms: the indices of the kept boxes, best first, ties by index.

    dets: (n, 4) float tensor of x0, y0, x1, y1; scores: (n,). Computed in double: the same boxes as the compiled operator.
    """
    import torch

    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order].double()
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = torch.ones(len(boxes), dtype=torch.bool)
    kept = []
    for i in range(len(boxes)):
        if not alive[i]:
            continue
        kept.append(i)
        low = torch.maximum(boxes[i, :2], boxes[i + 1 :, :2])
        high = torch.minimum(boxes[i, 2:], boxes[i + 1 :, 2:])
        both = (high - low).clamp_(min=0).prod(1)
        alive[i + 1 :] &= ~(both / (area[i] + area[i + 1 :] - both) > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.long)]
