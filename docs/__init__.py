"""The documentation; ``python -m docs.tables`` writes its tables and its picture of the phases."""
