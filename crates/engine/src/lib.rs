//! Managed ETL: SQL over declared datasets on an embedded engine.
