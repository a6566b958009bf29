# The web chat of ImCluster's demo: a small business service that pushes through imhelper.
# It holds no sockets itself: browsers connect to imservers, this service only says where and what.
