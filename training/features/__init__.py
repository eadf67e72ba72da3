"""Features once, for training and serving: `python -m training features build|materialize|serve|status FAMILY`.

declared.py      what a family says of its features, and where its files lie
command_line.py  the commands; what they do runs in the environment `data`, where Feast is
store.py         Feast's objects, made of the declaration; its configuration from configs/features/
building.py      what is computed and joined, for training; joining.py: Feast's point-in-time join
leakage.py       whether a feature was computed with the future
materializing.py the newest row of each key into the online store, for serving; intervals.py: since when
serving.py       Feast's feature server; reporting.py: how fresh everything is
"""
