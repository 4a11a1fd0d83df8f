"""Measurements of unface beside other detectors; `README.md` says which and how."""
