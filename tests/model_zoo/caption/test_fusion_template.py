import pytest

from model_zoo.caption import fusion_template


def subject(phrase: str, action: str = "", position: str = "", expression: str = "") -> dict[str, str]:
    return {"phrase": phrase, "action": action, "position": position, "expression": expression}


def scene(*subjects: dict[str, str], place: str = "", lighting: str = "", **shot: str) -> dict:
    other = {"shot_type": "other", "shot_angle": "other", "shot_position": "other"}
    return {**other, **shot, "subjects": list(subjects), "environment_phrase": place, "lighting": lighting}


def test_shot_subjects_environment_and_light_come_in_skyreels_order():
    person = subject("a person in a yellow top", "gestures", "on the left")
    prompt = fusion_template.fuse(
        scene(
            person,
            subject("a red bottle", "", "on the right"),
            place="a grey background",
            lighting="dim",
            shot_type="medium_shot",
            shot_position="front_view",
        )
    )
    assert prompt == (
        "In a medium shot, seen from the front, a person in a yellow top gestures on the left. "
        "There is a red bottle on the right. The scene is set against a grey background. The lighting is dim."
    )


def test_a_scene_without_subjects_is_a_sentence_and_no_dash():
    prompt = fusion_template.fuse(scene(place="a grey background", shot_type="long_shot"))
    assert prompt == "A long shot of a grey background against which nothing stands out."
    assert fusion_template.fuse(scene()) == "A view in which nothing stands out."


@pytest.mark.parametrize(
    ("first", "rest"),
    [
        (subject("a cat", "Sitting on a sofa."), "a cat is sitting on a sofa."),
        (
            subject("a cat", "runs", "In the middle of the room, beside a chair"),
            "a cat runs, in the middle of the room,",
        ),
        (subject("a woman", "talks", "", "Excited"), "a woman talks, with an excited expression."),
        (subject("a cup in the centre", "", "in the centre"), "there is a cup in the centre."),
    ],
)
def test_words_of_a_network_are_fitted_into_the_sentence(first, rest):
    assert fusion_template.fuse(scene(first)).startswith(f"In this scene, {rest}")


def test_what_is_only_there_comes_in_one_sentence_and_what_others_do_in_the_next():
    dog = subject("a dog", "sleeps", "in the centre")
    cup, hat = subject("a cup", "", "on the left"), subject("a hat on the right", "", "on the right")
    cat, ball = subject("a cat", "runs", "on the left"), subject("a ball", "moves up")
    assert fusion_template.fuse(scene(dog, cat, cup, hat, ball)) == (
        "In this scene, a dog sleeps in the centre. There is a cup on the left and a hat on the right. "
        "Meanwhile, a cat runs on the left and a ball moves up."
    )


def test_subjects_without_a_place_are_told_as_well():
    cup, cat, pen = subject("a cup"), subject("a cat", "runs"), subject("a pen")
    assert fusion_template.fuse(scene(cup, pen)) == "In this scene, there is a cup. There is also a pen."
    assert fusion_template.fuse(scene(cup, cat)) == "In this scene, there is a cup. Meanwhile, a cat runs."


def test_a_long_place_stands_at_the_end():
    pen = subject("a pen", "", "On the table, in front of the window")
    assert fusion_template.fuse(scene(subject("a cup"), pen)).endswith(
        "There is also a pen, on the table, in front of the window."
    )


def test_an_environment_that_is_a_sentence_stays_one():
    prompt = fusion_template.fuse(scene(subject("a cup"), place="The background shows a street"))
    assert prompt == "In this scene, there is a cup. The background shows a street."
