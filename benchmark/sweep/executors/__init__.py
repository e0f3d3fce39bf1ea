"""Executors of a sweep's runs: processes of this machine, Ray, Slurm.

``base.py``: the interface; ``work.py``: a job on a worker; ``../workers.py``: a sweep's runs on an
executor. Imports nothing heavy.
"""
