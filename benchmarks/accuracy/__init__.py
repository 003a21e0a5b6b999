"""How well the classifiers do, from the microscope they know to one they have never seen.

``python -m benchmarks.accuracy --data ../shared/data`` evaluates the shipped weights and the stored results of the
trainings that leave a source out, and writes the table of ``docs/accuracy.md`` (Markdown and JSON).  ``cells`` gathers
the cells and their parts, ``trunk`` trains, ``leave_one_out`` makes the models of row D, ``calibrated`` fits them to
few cells for row H, ``ship`` makes the bundles.
"""
