//! Fixtures for demo and tests.
