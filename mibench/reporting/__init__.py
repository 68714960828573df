"""What is told of finished cells: the report page, the findings, copies in a tracker."""
