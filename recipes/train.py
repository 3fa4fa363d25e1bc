from hetmarl.cli.train import main

main()
