"""Attacks on one update: what a server makes of an upload, when it knows the model and how clients train."""

from attacks.update.cosine import Cosine
from attacks.update.first_layer import FirstLayer
from attacks.update.gradient_matching import DLG, IDLG
from attacks.update.probe import probe
from attacks.update.quality import Matching, Originals, matching, psnr, ssim
from attacks.update.upload import Upload

__all__ = [
    "DLG",
    "IDLG",
    "Cosine",
    "FirstLayer",
    "Matching",
    "Originals",
    "Upload",
    "matching",
    "probe",
    "psnr",
    "ssim",
]
