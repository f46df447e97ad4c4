//! Pulls OCI images from a registry into verified, shared layer directories.
