"""Export of shards to the formats that other trainers read, see docs/export.md."""
