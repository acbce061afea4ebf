"""The experiments of the paper and our own: rows as runs, results as tables, plots and pages.

`ashnets.zoo.experiment_files` reads what an experiment is, `deriving` makes a recipe of each row, `units` the runs of a
row and a seed, `running` runs and measures them, `reporting` writes what they show.
"""
