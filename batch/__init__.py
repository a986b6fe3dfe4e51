"""Many stories from one table through one workflow, and their scores: ``python -m batch``; see docs/BATCH.md."""
