import numpy as np

from a2data.media import contact_sheet


def greys(*values) -> np.ndarray:
    return np.stack([np.full((32, 48, 3), value, np.uint8) for value in values])


def test_a_sheet_shows_every_picture_at_its_place():
    red, blue = np.full((20, 40, 3), (255, 0, 0), np.uint8), np.full((32, 16, 3), (0, 0, 255), np.uint8)
    made = contact_sheet.sheet([("one", [red, blue]), ("two", [blue])])

    tile, gap, label = contact_sheet.TILE_PX, contact_sheet.GAP_PX, contact_sheet.LABEL_PX
    assert made.shape == (2 * (tile + gap + label), 3 * gap + 2 * tile + tile // 2, 3)
    assert (made[label : label + tile, gap : gap + 2 * tile] == (255, 0, 0)).all()
    assert (made[label : label + tile, 2 * gap + 2 * tile : -gap] == (0, 0, 255)).all()
    below = 2 * label + tile + gap
    assert (made[below : below + tile, gap : gap + tile // 2] == (0, 0, 255)).all()
    assert (made[below : below + tile, gap + tile // 2 :] == 255).all()
    assert (made[:label] < 128).any()  # the label


def test_stills_are_spread_from_the_first_frame_to_the_last():
    assert [int(still[0, 0, 0]) for still in contact_sheet.stills(greys(*range(11)))] == [0, 2, 4, 6, 8, 10]
    assert len(contact_sheet.stills(greys(1, 2))) == 2


def test_a_row_without_pictures_is_a_label_on_white():
    made = contact_sheet.sheet([("one", []), ("two", list(greys(0)))])

    below = contact_sheet.LABEL_PX + contact_sheet.TILE_PX
    assert (made[contact_sheet.LABEL_PX : below] == 255).all()
