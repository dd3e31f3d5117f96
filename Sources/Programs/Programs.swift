// Nothing but what it depends on: the three programs, so that one `swift build --target Programs` builds them side by side.
