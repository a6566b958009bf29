module imcluster.bench/centrifugo

go 1.26

require github.com/centrifugal/centrifugo/v6 v6.9.1
