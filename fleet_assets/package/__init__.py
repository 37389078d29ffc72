"""Stage package: models, features and a verdict on exactly these become one release that waits for its approvers."""
