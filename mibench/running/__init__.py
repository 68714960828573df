"""One cell as it runs: dataset and models, what the attacker holds, the attack, and the rows."""
