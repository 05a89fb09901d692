"""The models that the tables and several figures compare."""

from __future__ import annotations

from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, Setting
from qd.report.labels import model_label

HEADLINE = ("betas", "teacher", "guidance-base", "middle", "slider", "soup")
"""The series that these models come from."""


def headline(data: ReportData) -> dict[str, Setting]:
    """The models that the tables compare, by label: base, CFG, each β, the middle of the slider, the soup.

    CFG and the middle come from the series ``teacher`` and ``middle``, which may have several sampling seeds. If these
    are missing, they come from the points of ``guidance-base`` and ``slider``.

    Raises:
        NotMeasuredError: Fewer than two of these models were measured.
    """
    models = [*data.series("betas")]
    guided = [one for one in data.series("guidance-base") if one.point.guidance_scale == 3]
    middle = [one for one in data.series("slider") if one.point.lam is not None and abs(one.point.lam - 0.5) < 1e-9]
    models += data.series("teacher") or guided
    models += data.series("middle") or middle
    models += data.series("soup")
    if len(models) < 2:
        raise NotMeasuredError("needs series betas, and guidance-base, slider or soup")
    labels = [model_label(setting.point) for setting in models]
    return {
        label if labels.count(label) == 1 else f"{label} ({setting.point.model})": setting
        for label, setting in zip(labels, models, strict=True)
    }
