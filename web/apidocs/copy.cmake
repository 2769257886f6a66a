# Copies what the server serves below /docs: cmake -D FROM=web/apidocs -D TO=build/share/apidocs -P copy.cmake
file(MAKE_DIRECTORY ${TO})
foreach(file swagger.html swagger-init.js redoc.html redoc-init.js
        node_modules/swagger-ui-dist/swagger-ui.css node_modules/swagger-ui-dist/swagger-ui-bundle.js
        node_modules/swagger-ui-dist/favicon-32x32.png node_modules/redoc/bundles/redoc.standalone.js)
  if(EXISTS ${FROM}/${file})
    file(COPY ${FROM}/${file} DESTINATION ${TO})
  endif()
endforeach()
