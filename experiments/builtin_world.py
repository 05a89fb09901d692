"""Is the built-in world's variety heard? Prints how well a simple listener tells held-out genres and leads apart.

python experiments/builtin_world.py
"""

from builtin_listener import report

if __name__ == "__main__":
    print("| what | accuracy on held-out pieces | chance (commonest class) |\n|---|---|---|")
    for what, (accuracy, chance) in report(train_clips=6000, test_clips=2000).items():
        print(f"| {what} | {accuracy:.3f} | {chance:.3f} |")
