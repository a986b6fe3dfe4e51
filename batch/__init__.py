"""Many stories from one table through one workflow: ``python -m batch run``; see docs/BATCH.md."""
