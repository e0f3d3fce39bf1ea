"""The usual short names of metrics, in a module that reports import without torch."""

SHORT_NAMES = {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc", "delta1": "δ1", "delta2": "δ2",
               "delta3": "δ3", "maxf": "maxF", "meanf": "meanF", "mae": "MAE", "smeasure": "S",
               "maxe": "maxE", "abs_rel": "AbsRel", "rmse": "RMSE", "silog": "SILog", "ods": "ODS",
               "ois": "OIS", "ap": "AP", "r50": "R50"}  # fmt: skip
"""By name; another task may add its metrics. A metric without an entry goes by its name."""


def metric_name(name: str) -> str:
    """The usual short name of a metric: "AbsRel" for "abs_rel" and for "abs_rel@nyu_eigen"."""
    return SHORT_NAMES.get(name.partition("@")[0], name)


def metric_title(name: str, higher_is_better: bool) -> str:
    """The usual short name of a metric; an arrow shows which way is better."""
    return f"{metric_name(name)} {'↑' if higher_is_better else '↓'}"
