"""Events and items in: schemas, readers, checks, ids to rows, histories as CSR arrays, ties."""
