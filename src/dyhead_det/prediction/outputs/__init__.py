"""What prediction writes: a journal, tables made from it, and files of single images."""
