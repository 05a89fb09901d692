"""Prints how well a simple classifier recognises genres and lead instruments of held-out pieces of the built-in world.

python experiments/builtin_world.py
"""

from builtin_classifier import report

if __name__ == "__main__":
    print("| what | accuracy on held-out pieces | chance (most frequent class) |\n|---|---|---|")
    for what, (accuracy, chance) in report(train_clips=6000, test_clips=2000).items():
        print(f"| {what} | {accuracy:.3f} | {chance:.3f} |")
