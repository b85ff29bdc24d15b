"""What public modules show, and what errors say of the words of other libraries."""
