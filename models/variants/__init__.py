"""timm models of this project's own, one file each: ``docs/extending.md`` has an example."""
