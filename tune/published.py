"""What the report says: its tables' figures, and each finding as a comparison of rows. Data alone, nothing runs here.

Rows without a figure are what its text claims or leaves open. Errors are MPJPE in mm: `published_mm` on S8 at the best
epoch, `public_mm` on S9 and S11.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

Part = Literal["val", "test"]


@dataclass(frozen=True)
class Row:
    """One training of a table.

    Attributes:
        name: within its table.
        config: its packaged settings.
        label: for people.
        published_mm: of the validation subject; None where the report gives none.
        epoch: the best one, as published.
        public_mm: of the test subjects.
    """

    name: str
    config: str
    label: str
    published_mm: float | None = None
    epoch: int | None = None
    public_mm: float | None = None


@dataclass(frozen=True)
class Finding:
    """A sum of rows' errors that is above 0 where the finding holds.

    Attributes:
        text: the finding in words, or a question that the report leaves open.
        weights: what each row's error is multiplied by; rows as `table/row`.
        part: whose error, validation or test.
    """

    text: str
    weights: dict[str, float]
    part: Part = "val"


@dataclass(frozen=True)
class Table:
    """A table of the report, or a group of rows that it leaves open.

    Attributes:
        name: as `--only` takes it.
        title: for people.
        rows: in the report's order.
        findings: what the rows are there to show.
        same_backbone: the small form keeps the rows' backbones and narrows them, where it else takes shorter ones.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...] = field(default=())
    same_backbone: bool = False

    @property
    def tests(self) -> bool:
        """Whether its rows are scored on the test subjects too."""
        return any(row.public_mm is not None for row in self.rows)


def _less(text: str, better: str, worse: str, part: Part = "val") -> Finding:
    """The finding that one row's error is below another's."""
    return Finding(text, {worse: 1.0, better: -1.0}, part)


TABLES: Final = (
    Table(
        "table1",
        "Table 1: bins of the pyramid, with flip",
        (
            Row("none", "report/table1/none.yaml", "no pyramid", 50.65, 55),
            Row("ppm_1_2_3_6", "report/table1/ppm_1_2_3_6.yaml", "1, 2, 3, 6", 48.46, 41),
            Row("ppm_1_6_12_18", "report/table1/ppm_1_6_12_18.yaml", "1, 6, 12, 18", 48.90, 58),
            Row("ppm_1_2_3_6_12_18", "report/table1/ppm_1_2_3_6_12_18.yaml", "1, 2, 3, 6, 12, 18", 49.75, 41),
            Row("ppm_1_2_3_6_12_18_24", "report/table1/ppm_1_2_3_6_12_18_24.yaml", "1, 2, 3, 6, 12, 18, 24", 50.99, 41),
        ),
        (
            _less("The pyramid 1, 2, 3, 6 lowers the error", "table1/ppm_1_2_3_6", "table1/none"),
            _less("1, 2, 3, 6 beats 1, 6, 12, 18", "table1/ppm_1_2_3_6", "table1/ppm_1_6_12_18"),
            _less("1, 2, 3, 6 beats six bins", "table1/ppm_1_2_3_6", "table1/ppm_1_2_3_6_12_18"),
            _less("1, 2, 3, 6 beats seven bins", "table1/ppm_1_2_3_6", "table1/ppm_1_2_3_6_12_18_24"),
            _less("Seven bins are no better than none", "table1/none", "table1/ppm_1_2_3_6_12_18_24"),
        ),
    ),
    Table(
        "table2",
        "Table 2: one augmentation at a time",
        (
            Row("baseline", "report/table2/baseline.yaml", "none", 53.30, 37),
            Row("flip", "report/table2/flip.yaml", "flip", 50.64, 37),
            Row("colour", "report/table2/colour.yaml", "colour", 49.98, 37),
            Row("voc", "report/table2/voc.yaml", "VOC2012 objects", 47.98, 55),
        ),
        (
            _less("Flip lowers the error", "table2/flip", "table2/baseline"),
            _less("Colour lowers the error", "table2/colour", "table2/baseline"),
            _less("VOC2012 objects lower the error", "table2/voc", "table2/baseline"),
            _less("Objects gain more than colour", "table2/voc", "table2/colour"),
            _less("Colour gains more than flip", "table2/colour", "table2/flip"),
        ),
    ),
    Table(
        "table3",
        "Table 3: the final network",
        (
            Row("train", "report/table3/train.yaml", "trained without S8", 42.64, None, 41.80),
            Row("trainval", "report/table3/trainval.yaml", "trained with S8, last epoch", None, None, 37.30),
        ),
        (
            _less("A fifth subject lowers the test error", "table3/trainval", "table3/train", "test"),
            _less("Everything together beats the baseline", "table3/train", "table2/baseline"),
        ),
    ),
    Table(
        "table4",
        "Table 4: backbones, D 72",
        (
            Row("resnet50", "report/table4/resnet50.yaml", "ResNet-50", 52.61, 46),
            Row("resnet101", "report/table4/resnet101.yaml", "ResNet-101", 52.24, 42),
            Row("resnet152", "report/table4/resnet152.yaml", "ResNet-152", 48.30, 34),
        ),
        (
            _less("ResNet-101 beats ResNet-50", "table4/resnet101", "table4/resnet50"),
            _less("ResNet-152 beats ResNet-101", "table4/resnet152", "table4/resnet101"),
            _less("ResNet-152 beats ResNet-50", "table4/resnet152", "table4/resnet50"),
        ),
    ),
    Table(
        "table5",
        "Table 5: size of the crop, ResNet-152, D 72",
        (
            Row("256x256", "report/table5/256x256.yaml", "256x256", 48.30, 34),
            Row("288x384", "report/table5/288x384.yaml", "288x384", 47.91, 41),
        ),
        (_less("The larger crop lowers the error", "table5/288x384", "table5/256x256"),),
    ),
    Table(
        "table6",
        "Table 6: augmentations that were dropped",
        (
            Row("none", "report/table6/none.yaml", "none", 53.30, 37),
            Row("rotation", "report/table6/rotation.yaml", "rotation", 53.99, 31),
            Row("zoom", "report/table6/zoom.yaml", "zoom", 62.29, 28),
        ),
        (
            _less("Rotation raises the error", "table6/none", "table6/rotation"),
            _less("Zoom raises the error", "table6/none", "table6/zoom"),
        ),
    ),
    Table(
        "botnet",
        "Left open: BoTNet-50",
        (
            Row("resnet50", "report/baseline.yaml", "ResNet-50"),
            Row("botnet50", "study/botnet50.yaml", "BoTNet-50"),
            Row("resnet50_ppm", "study/resnet50_ppm.yaml", "ResNet-50, pyramid"),
            Row("botnet50_ppm", "study/botnet50_ppm.yaml", "BoTNet-50, pyramid"),
            Row("resnet50_ppm_augment", "study/resnet50_ppm_augment.yaml", "ResNet-50, pyramid, augmentation"),
            Row("botnet50_ppm_augment", "study/botnet50_ppm_augment.yaml", "BoTNet-50, pyramid, augmentation"),
        ),
        (
            _less("Is BoTNet-50 better than ResNet-50?", "botnet/botnet50", "botnet/resnet50"),
            _less("With the pyramid?", "botnet/botnet50_ppm", "botnet/resnet50_ppm"),
            _less("With augmentation too?", "botnet/botnet50_ppm_augment", "botnet/resnet50_ppm_augment"),
            _less("Does the pyramid help BoTNet-50?", "botnet/botnet50_ppm", "botnet/botnet50"),
        ),
        same_backbone=True,
    ),
    Table(
        "heads",
        "Left open: heads and losses",
        (
            Row("integral", "report/baseline.yaml", "integral, L1"),
            Row("probabilistic", "study/probabilistic.yaml", "probabilistic"),
            Row("l1_heatmap", "study/l1_heatmap.yaml", "L1 and heat map L2"),
            Row("heatmap", "study/heatmap.yaml", "heat map L2 alone"),
        ),
        (
            _less("Is the probabilistic head worse than the integral?", "heads/integral", "heads/probabilistic"),
            _less("Does a heat map loss beside L1 help?", "heads/l1_heatmap", "heads/integral"),
            _less("Is the heat map loss alone worse than L1?", "heads/integral", "heads/heatmap"),
        ),
    ),
    Table(
        "ppm_backbone",
        "Left open: pyramid x backbone, D 72",
        (
            Row("resnet50", "report/table4/resnet50.yaml", "ResNet-50"),
            Row("resnet50_ppm", "study/resnet50_d72_ppm.yaml", "ResNet-50, pyramid"),
            Row("resnet101", "report/table4/resnet101.yaml", "ResNet-101"),
            Row("resnet101_ppm", "study/resnet101_d72_ppm.yaml", "ResNet-101, pyramid"),
            Row("resnet152", "report/table4/resnet152.yaml", "ResNet-152"),
            Row("resnet152_ppm", "study/resnet152_d72_ppm.yaml", "ResNet-152, pyramid"),
        ),
        (
            Finding(
                "Does the pyramid help over all three backbones?",
                {
                    **{f"ppm_backbone/resnet{depth}": 1 / 3 for depth in (50, 101, 152)},
                    **{f"ppm_backbone/resnet{depth}_ppm": -1 / 3 for depth in (50, 101, 152)},
                },
            ),
            Finding(
                "Does it help ResNet-50 more than ResNet-152?",
                {
                    **{"ppm_backbone/resnet50": 1.0, "ppm_backbone/resnet50_ppm": -1.0},
                    **{"ppm_backbone/resnet152": -1.0, "ppm_backbone/resnet152_ppm": 1.0},
                },
            ),
        ),
    ),
    Table(
        "augment_augment",
        "Left open: augmentation x augmentation",
        (
            Row("none", "report/baseline.yaml", "none"),
            Row("flip", "report/table2/flip.yaml", "flip"),
            Row("colour", "report/table2/colour.yaml", "colour"),
            Row("voc", "report/table2/voc.yaml", "objects"),
            Row("flip_colour", "study/flip_colour.yaml", "flip, colour"),
            Row("flip_voc", "study/flip_voc.yaml", "flip, objects"),
            Row("colour_voc", "study/colour_voc.yaml", "colour, objects"),
            Row("flip_colour_voc", "study/flip_colour_voc.yaml", "flip, colour, objects"),
        ),
        (
            _less("Do all three beat none?", "augment_augment/flip_colour_voc", "augment_augment/none"),
            _less("Do all three beat objects alone?", "augment_augment/flip_colour_voc", "augment_augment/voc"),
            Finding(
                "Do flip and objects give less together than the sum of both?",
                {
                    **{"augment_augment/none": 1.0, "augment_augment/flip_voc": 1.0},
                    **{"augment_augment/flip": -1.0, "augment_augment/voc": -1.0},
                },
            ),
        ),
    ),
)
