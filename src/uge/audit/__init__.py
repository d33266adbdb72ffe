"""The audit: many trainings on one published copy, each a record, and what they say together."""
