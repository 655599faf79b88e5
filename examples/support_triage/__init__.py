"""The workflow that `forebay demo` runs; a package, so that every install finds its files."""
