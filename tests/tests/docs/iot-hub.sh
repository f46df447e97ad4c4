# A device without a hub.
