"""One file per method, found by its name.

`msn`, `pmsn`, `mae`, `simsiam`, `dino` and `lejepa` pretrain; the others train a classifier. A method's file offers
`Config` (every option with its default) and `Method`, which is built by `Method(config, encoder, setting)`.
"""
