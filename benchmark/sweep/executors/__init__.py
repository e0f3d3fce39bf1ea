"""Where the runs of a sweep are executed: processes of this machine, Ray's, Slurm's.

``base.py`` says what an executor is, ``work.py`` what a worker does with a job, ``driver.py`` how a
sweep's runs go through an executor. Imports nothing heavy.
"""
