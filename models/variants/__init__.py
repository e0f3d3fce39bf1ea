"""timm models of this project, one file each: ``docs/extending.md`` has an example."""
