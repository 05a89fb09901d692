"""The models that the tables and several figures compare."""

from __future__ import annotations

from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, Setting
from qd.report.labels import model_label

HEADLINE = ("betas", "teacher", "guidance-base", "middle", "slider", "soup")
"""The series that they are taken from."""


def headline(data: ReportData) -> dict[str, Setting]:
    """The models that the tables compare, by label: base, CFG, each β, the middle of the slider, the soup.

    CFG and the middle are those of series of their own, ``teacher`` and ``middle``, which may have several seeds of
    sampling as the others do; where these are not there, a point of the line.

    Raises:
        NotMeasuredError: there is none of them but the base model.
    """
    found = [*data.series("betas")]
    guided = [one for one in data.series("guidance-base") if one.point.guidance_scale == 3]
    slid = [one for one in data.series("slider") if one.point.lam is not None and abs(one.point.lam - 0.5) < 1e-9]
    found += data.series("teacher") or guided
    found += data.series("middle") or slid
    found += data.series("soup")
    if len(found) < 2:
        raise NotMeasuredError("needs series betas, and guidance-base, slider or soup")
    labels = [model_label(setting.point) for setting in found]
    return {
        label if labels.count(label) == 1 else f"{label} ({setting.point.model})": setting
        for label, setting in zip(labels, found, strict=True)
    }
