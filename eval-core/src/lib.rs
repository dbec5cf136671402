//! What a ranking is worth: metrics, significance, exact retrieval and the report schema.
