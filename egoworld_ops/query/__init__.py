"""What people ask the lake in SQL: the catalog of views, and the questions shipped with it."""
