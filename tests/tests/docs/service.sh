# The script is where the page says that it goes.
