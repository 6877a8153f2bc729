"""The comparison of capsjax with its references: what is compared, how exactly, what was found."""
