if __name__ == "__main__":  # worker processes of environments import this file
    from hetmarl.cli.train import main

    main()
