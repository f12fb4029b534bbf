"""LAMAE itself: pure functions of parameters, signals and masks. It never sees a file, a mesh or a config dict."""
