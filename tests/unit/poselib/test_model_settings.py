import pytest

from poselib.settings import LossSettings, ModelSettings

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"ppm_bins": (1, 2, 2)},
            r"ppm_bins must be one or more different whole numbers of at least 1, .* not \[1, 2, 2\]",
        ),
        ({"ppm_bins": (0, 1)}, r"ppm_bins must be one or more different whole numbers of at least 1, .* not \[0, 1\]"),
        ({"ppm_bins": ()}, r"ppm_bins must be one or more .*, or null for no pyramid, not \[\]"),
        ({"ppm_bins": (1, 2, 3), "ppm_channels": 2}, "ppm_bins must be at most 2"),
        ({"backbone": "resnet18", "width": 1, "ppm_bins": tuple(range(1, 10))}, "ppm_bins must be at most 8"),
        ({"ppm_channels": -1}, "ppm_channels must be at least 0"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"crop_width": 250}, "crop_width must be a positive multiple of 32"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"head": "regression", "inference": "mode"}, "inference must be integral"),
    ],
)
def test_bad_model_settings_name_the_setting_and_what_is_valid(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSettings(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l1": -1.0}, "l1 must be at least 0"),
        ({"heatmap": float("nan")}, "heatmap must be at least 0"),
        ({"l1": 0.0}, "l1 and heatmap must not both be 0"),
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"draws": 2}, "draws must be even and at least 4"),
        ({"draws": 65}, "draws must be even and at least 4"),
        ({"draws_averaged": 0}, "draws_averaged must be at least 1"),
        ({"draws": 8, "draws_averaged": 6}, "draws_averaged must be at most 5"),
    ],
)
def test_bad_loss_settings_name_the_setting_and_what_is_valid(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSettings(**values)


def test_losses_that_the_head_cannot_give_are_refused() -> None:
    LossSettings(heatmap=1.0).check(ModelSettings())
    with pytest.raises(ValueError, match="heatmap must be 0 for the regression head"):
        LossSettings(heatmap=1.0).check(ModelSettings(head="regression"))
    with pytest.raises(ValueError, match="l1 must be above 0 for the probabilistic head"):
        LossSettings(l1=0.0, heatmap=1.0).check(ModelSettings(head="probabilistic"))


def test_bins_beyond_the_feature_map_are_noticed_in_one_line() -> None:
    assert ModelSettings(ppm_bins=(1, 2, 8)).notices == []
    (line,) = ModelSettings(crop_width=288, crop_height=384, ppm_bins=(1, 6, 12, 18)).notices
    assert line == "ppm_bins 12, 18: more cells than the feature map of 9 x 12 has; pooling repeats cells"
