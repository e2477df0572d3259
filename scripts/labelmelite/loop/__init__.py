"""An iteration of the loop, served: its policy decides what is asked next, people answer, answers leave as files."""
