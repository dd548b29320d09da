"""What tests are made of: clips, faces, evidence, reports, toy detectors; tools/ borrows from it."""
