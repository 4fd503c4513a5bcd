"""Looking a folder of pictures over before training: what is broken, there twice, or has its caption wrong."""

from trainer.curation.doctor.examination import examine
from trainer.curation.doctor.report import SEVERITIES, Finding, Report, Severity

__all__ = ["SEVERITIES", "Finding", "Report", "Severity", "examine"]
