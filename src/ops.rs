//! Pure functions on volumes: no files, no configuration, no logging.
