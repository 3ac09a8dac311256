//! Tables on disk: Delta log, staging, durable roll-forward of commit decisions, content digests.
